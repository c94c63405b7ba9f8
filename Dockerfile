# The serving side: no torch, no compiler, no shell script.
#
#   docker build -t ganforge .
#   docker run --rm -p 50051:50051 -v "$PWD/bundles:/bundles:ro" ganforge
#
# On an NVIDIA GPU: docker build --build-arg EXTRAS=serve,nvidia …, and docker run --gpus all …

FROM python:3.12-slim AS build
ARG EXTRAS=serve
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_PROGRESS_BAR=off
RUN python -m venv /opt/ganforge
WORKDIR /src
# Dependencies first, from the two files that name them, so that a change of the code does not install them again.
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN mkdir -p export/generators export/training/recipes protos runtime/backends server/client \
 && /opt/ganforge/bin/pip install -c constraints.txt ".[${EXTRAS}]" \
 && /opt/ganforge/bin/pip uninstall -y ganforge

FROM python:3.12-slim
RUN useradd --system --create-home --uid 10001 ganforge
COPY --from=build /opt/ganforge /opt/ganforge
WORKDIR /app
COPY runtime runtime
COPY protos protos
COPY server server
USER ganforge
ENV PATH=/opt/ganforge/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
VOLUME ["/bundles"]
EXPOSE 50051
STOPSIGNAL SIGTERM
# NOT_SERVING until every model is warm.
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --retries=3 \
  CMD ["python", "-c", "import sys; from server.client import Client; sys.exit(not Client(timeout_s=4).serving())"]
ENTRYPOINT ["python", "-m", "server"]
CMD ["--bundles", "/bundles", "--host", "0.0.0.0", "--port", "50051"]
