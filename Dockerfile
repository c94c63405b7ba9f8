# The serving side: no torch, no compiler, no pip, no shell script.
#
#   docker build -t ganforge .
#   docker run --rm -p 127.0.0.1:50051:50051 -v "$PWD/bundles:/bundles:ro" ganforge --insecure
#
# Without --insecure it wants a certificate (docs/security.md). Every flag can be a variable too (docs/configuration.md).
# On an NVIDIA GPU: docker build --build-arg EXTRAS=serve,nvidia …, and docker run --gpus all …
# tests/test_dockerfile.py replays these steps without Docker.

# The packages that pyproject.toml names, in a layer that a change of the code leaves as it is.
FROM python:3.12-slim AS dependencies
ARG EXTRAS=serve
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_PROGRESS_BAR=off
RUN python -m venv --without-pip /opt/ganforge
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
# Without the code this installs an empty ganforge and all that it depends on.
RUN python -m pip --python /opt/ganforge/bin/python install -c constraints.txt ".[${EXTRAS}]" \
 && python -m pip --python /opt/ganforge/bin/python uninstall -y ganforge
# What a server never loads, a quarter of it all: OpenVINO's plugins for Intel's GPUs and NPUs and its readers of other
# formats, ONNX Runtime's tools and its library for C programs, NumPy's compiler wrappers, tests, headers and type stubs.
RUN cd /opt/ganforge/lib/python3*/site-packages \
 && rm -rf openvino/include openvino/tools openvino/cmake openvino/libs/cache.json \
      openvino/libs/libopenvino_intel_gpu* openvino/libs/libopenvino_intel_npu* \
      openvino/libs/libopenvino_auto* openvino/libs/libopenvino_hetero* \
      openvino/libs/libopenvino_gguf* openvino/libs/libopenvino_jax* openvino/libs/libopenvino_paddle* \
      openvino/libs/libopenvino_pytorch* openvino/libs/libopenvino_tensorflow* \
      onnxruntime/transformers onnxruntime/quantization onnxruntime/tools onnxruntime/datasets \
      onnxruntime/capi/libonnxruntime.so.* numpy/f2py numpy/distutils numpy/_core/include \
 && find . -type d -name tests -prune -exec rm -rf {} + \
 && find . -type f -name "*.pyi" -delete && find . -type f -name "*.pxd" -delete && find . -type f -name "*.h" -delete

# The code as a wheel. .dockerignore lets in what the serving side needs.
FROM python:3.12-slim AS code
WORKDIR /src
COPY . .
RUN python -m pip wheel --no-deps --wheel-dir /dist .

# Both together, with the list of what they consist of, and the doctor's word that each backend still computes.
FROM dependencies AS installed
ARG EXTRAS=serve
COPY --from=code /dist /dist
RUN python -m pip --python /opt/ganforge/bin/python install --no-deps --no-index /dist/*.whl
RUN /opt/ganforge/bin/python -m server.sbom --extra "${EXTRAS}" > /opt/ganforge/sbom.json
RUN /opt/ganforge/bin/python -m server.sbom --extra "${EXTRAS}" --licences > /opt/ganforge/licences.md
# What holds unless a flag, a variable or another --config says otherwise.
RUN printf '[models]\nbundles = "/bundles"\n[listening]\nhost = "0.0.0.0"\n' > /opt/ganforge/ganforge.toml
RUN /opt/ganforge/bin/ganforge doctor

FROM python:3.12-slim
# The interpreter's own pip stays unused, so it goes.
RUN useradd --system --create-home --uid 10001 ganforge \
 && rm -rf /usr/local/bin/pip* /usr/local/lib/python3.*/site-packages/pip* /usr/local/lib/python3.*/ensurepip
COPY --from=installed /opt/ganforge /opt/ganforge
USER ganforge
WORKDIR /home/ganforge
ENV PATH=/opt/ganforge/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
ENV GANFORGE_SERVE_CONFIG=/opt/ganforge/ganforge.toml
VOLUME ["/bundles"]
# The calls; and the usual port of metrics, for --metrics-port 9464.
EXPOSE 50051 9464
STOPSIGNAL SIGTERM
# NOT_SERVING until every model is warm. With TLS, tell it the authority: -e GANFORGE_CA=…
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --retries=3 \
  CMD ["ganforge", "health", "--timeout-s", "4"]
ENTRYPOINT ["ganforge", "serve"]
