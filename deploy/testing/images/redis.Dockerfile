# Stands in for redis: the server and client of Debian, with the original's user, group and entrypoint.
ARG BASE_IMAGE=python:3.11-slim
FROM ${BASE_IMAGE}
# Of the release that the base image is of.
# hadolint ignore=DL3008
RUN groupadd --system --gid 1000 redis && useradd --system --uid 999 --gid redis --home-dir /data redis \
 && apt-get update -qq && apt-get install --yes --no-install-recommends redis-server && rm -rf /var/lib/apt/lists/* \
 && install -d -o redis -g redis /data
COPY redis-entrypoint.sh /usr/local/bin/docker-entrypoint.sh
WORKDIR /data
VOLUME /data
EXPOSE 6379
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["redis-server"]
