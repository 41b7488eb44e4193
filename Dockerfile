# One image per program: docker build --target relay .
# The final images have no shell and no root: the binary, certificates, a user.

FROM golang:1.26 AS build
WORKDIR /src
ENV CGO_ENABLED=0 GOCACHE=/go/build
COPY go.mod go.sum ./
COPY outbox/go.mod outbox/go.sum ./outbox/
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/go/build \
    go build -trimpath -o /out/ ./cmd/relay ./cmd/archive ./cmd/inbox ./cmd/user

FROM gcr.io/distroless/static-debian12:nonroot AS base
USER 65532:65532

FROM base AS relay
COPY --from=build /out/relay /relay
ENTRYPOINT ["/relay"]
CMD ["run"]

FROM base AS archive
COPY --from=build /out/archive /archive
ENTRYPOINT ["/archive"]
CMD ["run"]

FROM base AS inbox
COPY --from=build /out/inbox /inbox
ENTRYPOINT ["/inbox"]

FROM base AS user
COPY --from=build /out/user /user
ENTRYPOINT ["/user"]
CMD ["serve"]
