# The server. Targets: cpu, which is the default, and gpu, whose host needs the NVIDIA driver and the container toolkit only; and for the
# nodes of a Ray cluster, with which docker/rayservice.yaml starts them, cluster and cluster-gpu.
#
#     docker build -f docker/service.Dockerfile --target gpu -t atelier:gpu .

FROM docker.io/library/debian:bookworm-slim AS python
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 \
    && apt-get clean && rm -rf /var/lib/apt/lists/*

FROM python AS installer
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-pip python3-venv \
    && apt-get clean && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv --without-pip /opt/atelier
WORKDIR /build

FROM installer AS cpu-packages
COPY requirements/cpu.txt .
RUN python3 -m pip --python /opt/atelier/bin/python install --no-cache-dir --require-hashes -r cpu.txt \
    && find /opt/atelier -type d -name tests -prune -exec rm -rf {} +

FROM installer AS gpu-packages
COPY requirements/gpu.txt .
RUN python3 -m pip --python /opt/atelier/bin/python install --no-cache-dir --require-hashes -r gpu.txt \
    && find /opt/atelier -type d -name tests -prune -exec rm -rf {} +

FROM cpu-packages AS cluster-cpu-packages
COPY requirements/cluster.txt .
RUN python3 -m pip --python /opt/atelier/bin/python install --no-cache-dir --require-hashes -r cluster.txt

FROM gpu-packages AS cluster-gpu-packages
COPY requirements/cluster.txt .
RUN python3 -m pip --python /opt/atelier/bin/python install --no-cache-dir --require-hashes -r cluster.txt

FROM python AS application
WORKDIR /app
COPY LICENSE ./
COPY models models
COPY docker/check_gpu.py docker/
COPY service service
RUN python3 -m compileall -q service

# What both targets are but for their packages. All files are root's: the server writes none, and its root filesystem may be read-only.
FROM python AS server
LABEL org.opencontainers.image.title="Atelier" \
      org.opencontainers.image.description="REST inference microservice for generative vision" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --system --no-log-init --no-create-home --uid 10001 atelier
WORKDIR /app
ENV PATH=/opt/atelier/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    ATELIER_HOST=0.0.0.0
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=2m --retries=3 CMD ["python3", "-I", "-c", \
    "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ.get(\"ATELIER_PORT\", 8000)}/health/ready', timeout=2)"]
ENTRYPOINT ["python", "-m", "service"]

# A server that was given a GPU and cannot use it is not ready, rather than slow. TensorRT's engines are kept in /cache.
FROM server AS gpu
COPY --from=gpu-packages /opt/atelier /opt/atelier
COPY --from=application /app /app
RUN install --directory --owner=10001 /cache
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    ATELIER_PROVIDER=cuda \
    ATELIER_CACHE=/cache
USER 10001

# A node: KubeRay starts Ray in a login shell, and asks with wget how it is.
FROM server AS node
# hadolint ignore=SC2016
RUN apt-get update \
    && apt-get install -y --no-install-recommends wget \
    && apt-get clean && rm -rf /var/lib/apt/lists/* \
    && echo 'export PATH=/opt/atelier/bin:$PATH' > /etc/profile.d/atelier.sh \
    && install --directory --owner=10001 /home/atelier
ENV HOME=/home/atelier \
    PYTHONPATH=/app \
    RAY_USAGE_STATS_ENABLED=0
HEALTHCHECK NONE
ENTRYPOINT []
CMD ["bash"]

FROM node AS cluster
COPY --from=cluster-cpu-packages /opt/atelier /opt/atelier
COPY --from=application /app /app
USER 10001

FROM node AS cluster-gpu
COPY --from=cluster-gpu-packages /opt/atelier /opt/atelier
COPY --from=application /app /app
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    ATELIER_PROVIDER=cuda
USER 10001

FROM server AS cpu
COPY --from=cpu-packages /opt/atelier /opt/atelier
COPY --from=application /app /app
USER 10001
