# The serving side: no torch, no compiler, no shell script.
#
#   docker build -t ganforge .
#   docker run --rm -p 127.0.0.1:50051:50051 -v "$PWD/bundles:/bundles:ro" ganforge
#
# Without TLS, as here, publish the port on 127.0.0.1 only. For other machines, give the server a certificate:
#
#   docker run --rm -p 50051:50051 -v "$PWD/bundles:/bundles:ro" -v "$PWD/tls:/tls:ro" -e GANFORGE_CA=/tls/ca.pem \
#     -e GANFORGE_SERVER_NAME=ganforge.example ganforge --bundles /bundles --host 0.0.0.0 \
#     --tls-cert /tls/server.pem --tls-key /tls/server.key
#
# (The variables are for the health check, which is a client.)
# On an NVIDIA GPU: docker build --build-arg EXTRAS=serve,nvidia …, and docker run --gpus all …
# tests/test_dockerfile.py replays these steps without Docker.

# The packages that pyproject.toml names, in a layer that a change of the code leaves as it is.
FROM python:3.12-slim AS dependencies
ARG EXTRAS=serve
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_PROGRESS_BAR=off
RUN python -m venv /opt/ganforge
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
# Without the code this installs an empty ganforge and all that it depends on.
RUN /opt/ganforge/bin/pip install -c constraints.txt ".[${EXTRAS}]" \
 && /opt/ganforge/bin/pip uninstall -y ganforge

# The code as a wheel. .dockerignore lets in what the serving side needs.
FROM python:3.12-slim AS code
WORKDIR /src
COPY . .
RUN pip wheel --no-deps --wheel-dir /dist .

FROM python:3.12-slim
RUN useradd --system --create-home --uid 10001 ganforge
COPY --from=dependencies /opt/ganforge /opt/ganforge
COPY --from=code /dist /dist
RUN /opt/ganforge/bin/pip install --no-deps --no-index /dist/*.whl
USER ganforge
WORKDIR /home/ganforge
ENV PATH=/opt/ganforge/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
VOLUME ["/bundles"]
EXPOSE 50051
STOPSIGNAL SIGTERM
# NOT_SERVING until every model is warm.
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --retries=3 \
  CMD ["ganforge", "health", "--timeout-s", "4"]
ENTRYPOINT ["ganforge", "serve"]
# --insecure, because 0.0.0.0 is the container's own network: who can reach it is decided by -p or the orchestrator.
CMD ["--bundles", "/bundles", "--host", "0.0.0.0", "--port", "50051", "--insecure"]
