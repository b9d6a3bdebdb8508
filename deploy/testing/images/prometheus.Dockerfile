# Stands in for prom/prometheus: the server and promtool of Debian, where the original has them.
ARG BASE_IMAGE=python:3.11-slim
FROM ${BASE_IMAGE}
# Of the release that the base image is of.
# hadolint ignore=DL3008
RUN apt-get update -qq && apt-get install --yes --no-install-recommends prometheus wget && rm -rf /var/lib/apt/lists/* \
 && test -x /bin/prometheus && test -x /bin/promtool && install -d -o nobody -g nogroup /prometheus
USER 65534:65534
WORKDIR /prometheus
VOLUME /prometheus
EXPOSE 9090
ENTRYPOINT ["/bin/prometheus"]
CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]
