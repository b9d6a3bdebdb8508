# Stands in for oliver006/redis_exporter: the exporter of Debian, in the place of the original.
ARG BASE_IMAGE=python:3.11-slim
FROM ${BASE_IMAGE}
# Of the release that the base image is of.
# hadolint ignore=DL3008
RUN apt-get update -qq && apt-get install --yes --no-install-recommends prometheus-redis-exporter wget \
 && rm -rf /var/lib/apt/lists/* && ln -s /usr/bin/prometheus-redis-exporter /redis_exporter
USER 59000:59000
EXPOSE 9121
ENTRYPOINT ["/redis_exporter"]
