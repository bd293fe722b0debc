# netra-init with both kinds of iptables, for nodes without nftables. Built by docker/images.sh.
ARG BASE=debian:bookworm-slim
FROM ${BASE}
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="netra-init-iptables" \
      org.opencontainers.image.description="Redirect rules of the netra sidecar, by nftables or iptables" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/netra/netra" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN command -v iptables-legacy >/dev/null \
    || (apt-get -qq update && apt-get -qq install -y --no-install-recommends iptables \
        && rm -rf /var/lib/apt/lists/*)
# iptables opens its lock and would make it; with a read-only root and another user it cannot.
RUN install -o 65534 -g 65534 -m 0600 /dev/null /usr/local/lib/xtables.lock
ENV XTABLES_LOCKFILE=/usr/local/lib/xtables.lock
ADD netra-init.tar /
USER 65534:65534
ENTRYPOINT ["/netra-init"]
CMD ["apply"]
