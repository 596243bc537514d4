# The search service, `rw-keras serve`. No network's weights are in the image; examples/serve/README.md says where they come from.
#
#   docker build -t rw-keras .
#   docker run --rm rw-keras serve --help
ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim AS build
WORKDIR /source
RUN python -m venv /opt/rw_keras
COPY pyproject.toml setup.cfg README.md LICENSE NOTICE ./
COPY rw_keras rw_keras
RUN /opt/rw_keras/bin/pip install --no-cache-dir ".[serve,ncnn]"

FROM python:${PYTHON_VERSION}-slim
# A number that stays, so that the owners of mounts do.
RUN groupadd --gid 10001 rw_keras \
    && useradd --uid 10001 --gid 10001 --home-dir /cache --no-create-home --shell /usr/sbin/nologin rw_keras \
    && install -d -o 10001 -g 10001 /cache
COPY --from=build /opt/rw_keras /opt/rw_keras
# All that is written goes to /cache (weights, networks as runtimes have built them, thumbnails) and to /tmp (rankings); the rest may be
# read-only.
ENV PATH=/opt/rw_keras/bin:$PATH \
    HOME=/cache \
    XDG_CACHE_HOME=/cache \
    KERAS_HOME=/cache/keras \
    TMPDIR=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
EXPOSE 8000
# The model is loaded before the service listens.
HEALTHCHECK --start-period=5m --interval=10s --timeout=5s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=4)"]
ENTRYPOINT ["rw-keras"]
CMD ["serve", "--help"]
