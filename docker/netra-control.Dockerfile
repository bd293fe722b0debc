# netra-control, the rules of a fleet: one static program and the public roots of trust, no state. Built by
# docker/images.sh.
FROM scratch
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="netra-control" \
      org.opencontainers.image.description="One place for the rules of a fleet of netra sidecars" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/netra/netra" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY netra-control /netra-control
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
USER 65534:65534
EXPOSE 14960
STOPSIGNAL SIGTERM
ENTRYPOINT ["/netra-control"]
CMD ["serve"]
