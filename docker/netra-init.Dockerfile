# netra-init by nftables alone: one static program and nothing else. Built by docker/images.sh.
FROM scratch
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="netra-init" \
      org.opencontainers.image.description="Redirect rules of the netra sidecar, by nftables" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/netra/netra" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# A tar, because COPY loses the capabilities of the file, and without them only root could use them.
ADD netra-init.tar /
USER 65534:65534
ENTRYPOINT ["/netra-init"]
CMD ["apply"]
