# The image of a release: what deploy/Dockerfile makes, with the binaries that goreleaser has built, for each
# platform. See dockers_v2 in .goreleaser.yaml.

FROM golang:1.26 AS build

FROM scratch
ARG TARGETPLATFORM
# For a control plane behind https.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY $TARGETPLATFORM/batchreset /batchreset
USER 65532:65532
EXPOSE 8080
# The operators' listener is where the health check asks, in every command. Only
# this container can reach it.
ENV BATCHRESET_OPS_LISTEN=127.0.0.1:9090
# Whether the process lives, not whether Redis does: restarting us would not bring
# Redis back.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 CMD ["/batchreset", "healthcheck"]
ENTRYPOINT ["/batchreset"]
