# netra, the sidecar: one static program and the public roots of trust. Built by docker/images.sh.
FROM scratch
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="netra" \
      org.opencontainers.image.description="Transparent sidecar proxy, focused on tail latency" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/netra/netra" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY netra /netra
# Whom receivers over https are believed by; NETRA_TLS_CA_FILE names others.
COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# The user whose connections the rules let through. By number: runAsNonRoot cannot judge a name.
USER 1337:1337
EXPOSE 14956 14958
STOPSIGNAL SIGTERM
ENTRYPOINT ["/netra"]
