# Stands in for grafana/grafana, which Debian has no package of: it answers /api/health and draws nothing.
ARG BASE_IMAGE=python:3.11-slim
FROM ${BASE_IMAGE}
# Of the release that the base image is of.
# hadolint ignore=DL3008
RUN apt-get update -qq && apt-get install --yes --no-install-recommends wget && rm -rf /var/lib/apt/lists/* \
 && install -d -o 472 -g 0 /var/lib/grafana
COPY grafana.py /run.py
USER 472:0
WORKDIR /usr/share/grafana
VOLUME /var/lib/grafana
EXPOSE 3000
ENTRYPOINT ["python", "/run.py"]
