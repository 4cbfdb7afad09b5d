# Training, on the CPU. Models and runs are written to /app/models and /app/runs, downloads to /cache: mount them.
# Any user may write there, so that --user can be the one who owns the mounted folders.
#
#     docker build -f docker/training.Dockerfile -t atelier:training .

FROM docker.io/library/debian:bookworm-slim AS python
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 \
    && apt-get clean && rm -rf /var/lib/apt/lists/*

FROM python AS packages
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-pip python3-venv \
    && apt-get clean && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv --without-pip /opt/atelier
WORKDIR /build
COPY requirements/cpu.txt requirements/training.txt requirements/data.txt ./
RUN python3 -m pip --python /opt/atelier/bin/python install --no-cache-dir --require-hashes -r cpu.txt -r training.txt -r data.txt \
    && find /opt/atelier -type d -name tests -prune -exec rm -rf {} +

FROM python AS training
LABEL org.opencontainers.image.title="Atelier, training" \
      org.opencontainers.image.description="Trains models of generative vision and exports them for the server" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --system --no-log-init --no-create-home --uid 10001 atelier \
    && install --directory --mode=1777 /app/models /app/runs /cache
COPY --from=packages /opt/atelier /opt/atelier
WORKDIR /app
COPY LICENSE ./
COPY service service
COPY training training
RUN python3 -m compileall -q service training
ENV PATH=/opt/atelier/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    ATELIER_CACHE=/cache \
    HOME=/tmp
USER 10001
ENTRYPOINT ["python", "-m", "training"]
CMD ["list"]
