"""Samples: the path of a request to draw some, from its checked parameters to the answer that has left.

`Service.samples` (server/core/service.py) calls `Samples.answer`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from runtime.estimates import Coding
from runtime.sample_work import SampleWork
from runtime.tensors import TaskName
from server.core.calls import Call
from server.core.codec_threads import checking
from server.core.params import sample_params
from server.core.pipeline import encode_samples, run_job
from server.core.requests import SamplesAnswer, SamplesRequest
from server.core.shared import ANSWER_COPIES, Shared, new_flow, note_facts
from server.models.models import Model


class Samples:
    """The requests for samples of one server."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    async def answer(
        self,
        task: TaskName,
        request: SamplesRequest,
        send: Callable[[SamplesAnswer], Awaitable[None]],
        call: Call,
    ) -> None:
        """As `Service.samples`."""
        # A slow reader must hold neither the model, which may have to be closed, nor a place in the queue.
        async with self._shared.using(task, request.model, call) as model:
            answer = await self._drawn(model, request, call)
        leaving_bytes = ANSWER_COPIES * sum(map(len, answer.images))
        await self._shared.send(send, answer, call, leaving_bytes=leaving_bytes)

    async def _drawn(self, model: Model, request: SamplesRequest, call: Call) -> SamplesAnswer:
        """The answer to a request, drawn with this model."""
        shared = self._shared
        codecs, limits = shared.codecs, shared.limits
        params = await codecs.run(checking(), call, sample_params, request, model.manifest, limits)
        flow = new_flow(request, call)
        note_facts(call, model, flow, f"{params.count}×{params.width}×{params.height}")
        samples = SampleWork(model.engine, params.latents, params.labels, params.encoding, flow)
        coding = Coding(params.encoding, samples.cost.pixels, files=params.count)
        async with shared.admitted(samples, model, call, items=params.count, coding=coding, flow=flow):
            await run_job(model, samples.job(call.deadline_s), call)
            images = await encode_samples(samples, params, codecs, call)
            shared.estimates.learn(coding, call.stopwatch.times().codec_s)
            shared.check_fits("count", sum(map(len, images)), "ask for fewer samples, or for JPEG")
            return SamplesAnswer(
                images=tuple(images),
                format=params.encoding.format,
                width=params.width,
                height=params.height,
                model=model.name,
                labels=tuple(params.labels.tolist()),
                seed=params.seed,
                timing=call.timing(model, params.count),
            )
