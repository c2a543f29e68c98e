# PostgreSQL with pg_background: the official image, with the extensions built for exactly that server.
#   docker build --build-arg PG=18 -t postgres-pg-background:18 .
#   docker run -d --name tasks -e POSTGRES_PASSWORD=secret postgres-pg-background:18
#   docker exec tasks psql -U postgres -c "SELECT background.enqueue('SELECT 1')"
# `make test-image` builds and runs it.
ARG PG=18
ARG SUITE=bookworm
ARG RUST=1.95

FROM rust:${RUST}-${SUITE} AS rust

FROM postgres:${PG}-${SUITE} AS build
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
# The packages fit the server of the image, which has no version that could be named here.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential ca-certificates clang libclang-dev libkrb5-dev pkg-config \
        "postgresql-server-dev-$PG_MAJOR" \
    && rm -rf /var/lib/apt/lists/*
COPY --from=rust /usr/local/cargo /usr/local/cargo
COPY --from=rust /usr/local/rustup /usr/local/rustup
ENV CARGO_HOME=/usr/local/cargo RUSTUP_HOME=/usr/local/rustup PATH=/usr/local/cargo/bin:$PATH
WORKDIR /pg_background
COPY . .
RUN export PG_CONFIG="/usr/lib/postgresql/$PG_MAJOR/bin/pg_config" CARGO_TARGET_DIR=/target \
    && export PGRX_PG_CONFIG_PATH="$PG_CONFIG" \
    && cargo build --release --locked --no-default-features --features "pg$PG_MAJOR" \
    && make install-files DESTDIR=/installed

FROM postgres:${PG}-${SUITE}
COPY --from=build /installed/ /
# For the clusters that are made here: the first database has both extensions, and the library is loaded at the server's start, so that
# tasks run after a restart before any session has come.
COPY packaging/docker/10-pg_background.sql /docker-entrypoint-initdb.d/
RUN echo "shared_preload_libraries = 'pg_background'" >>"/usr/share/postgresql/$PG_MAJOR/postgresql.conf.sample"
