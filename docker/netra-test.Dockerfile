# An application and a client for the container tests: netra-loadtest, which is both.
FROM scratch
COPY netra-loadtest /netra-loadtest
USER 1000:1000
ENTRYPOINT ["/netra-loadtest"]
