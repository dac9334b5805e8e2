# The daemon and the kupool command. See compose.yaml for it with RabbitMQ and PostgreSQL.
#   docker build -t kupool . && docker run -p 8080:8080 -v kupool:/var/lib/kupool kupool

FROM python:3.12-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN python -m venv /opt/kupool \
 && /opt/kupool/bin/pip install --no-cache-dir --disable-pip-version-check --use-pep517 '.[tls]' \
 # twistd keeps a list of its plugins beside them, which the user below may not write.
 && cd / && /opt/kupool/bin/twistd --help >/dev/null

FROM python:3.12-slim-bookworm
COPY --from=build /opt/kupool /opt/kupool
RUN useradd --system --home-dir /var/lib/kupool --create-home --shell /usr/sbin/nologin kupool
ENV PATH=/opt/kupool/bin:$PATH \
    KUP_DATA=/var/lib/kupool \
    KUP_HTTP=tcp:8081
USER kupool
WORKDIR /var/lib/kupool
VOLUME /var/lib/kupool
EXPOSE 8080 8081
# SIGTERM stops it in order: more time than --shutdown-timeout, which is 30 s.
STOPSIGNAL SIGTERM
CMD ["twistd", "--nodaemon", "--pidfile=", "kupool"]
