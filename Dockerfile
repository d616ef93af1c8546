# One image, three commands: /worker, /enqueue and /fleet.
#
#   docker build -t fetchfleet .
#   docker run --rm fetchfleet /fleet --help
#
# Plain enough for BuildKit and for the classic builder of older engines.

FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY cmd cmd
COPY internal internal
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X github.com/fetchfleet/fetchfleet/internal/cli.version=${VERSION}" \
      -o /out/ ./cmd/worker ./cmd/enqueue ./cmd/fleet
# A named volume takes its owner from the folder it is first mounted over.
RUN mkdir -p /volumes/data /volumes/lists

FROM gcr.io/distroless/static-debian12:nonroot
ARG VERSION=dev
LABEL org.opencontainers.image.title="fetchfleet" \
      org.opencontainers.image.description="Fetches every URL of a list, politely, with as many workers as you start" \
      org.opencontainers.image.source="https://github.com/fetchfleet/fetchfleet" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
COPY --from=build /out/ /
COPY --from=build --chown=65532:65532 /volumes/ /
# A number, so that an orchestrator can see that it is not root.
USER 65532:65532
CMD ["/fleet", "--help"]
