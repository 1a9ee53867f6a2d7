# The toolchain image: TensorFlow 1.15.0 and a matching Object Detection API, on CPython 3.7.
#
#     docker build .
#     docker build --build-arg BASE_IMAGE=NAME --build-arg MODELS_SOURCE=pypi .
#
# MODELS_SOURCE is where the source of tensorflow/models comes from: github, pypi, or local, which uses the file
# docker/models-research-local.tar. If a proxy of the network replaces TLS certificates, put its CA bundle at
# docker/ca-certificates.crt. This file uses no apt. It uses no BuildKit-only syntax, because the program builds the
# image with the API of the classic builder.
ARG BASE_IMAGE=python:3.7-slim@sha256:b53f496ca43e5af6994f8e316cf03af31050bf7944e0e4a308ad86c001cf028b


# Only intermediate stages use the network, so the CA bundle does not get into the final image.
FROM ${BASE_IMAGE} AS network
ARG PIP_INDEX_URL
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore PIP_PROGRESS_BAR=off
WORKDIR /build
COPY docker/requirements-sdist.lock docker/ca-certificates.cr[t] ./
RUN if [ -f ca-certificates.crt ]; then cp ca-certificates.crt "$SSL_CERT_FILE"; fi


FROM network AS wheels
COPY docker/requirements.lock ./
RUN python -m venv /opt/venv \
 && /opt/venv/bin/python -m pip install --no-deps --require-hashes --only-binary :all: -r requirements.lock
# gast has no wheel: it is built with the setuptools and wheel that the lock file has just installed.
RUN /opt/venv/bin/python -m pip install --no-deps --require-hashes --no-build-isolation -r requirements-sdist.lock \
 && /opt/venv/bin/python -m pip check \
 && /opt/venv/bin/python -m pip uninstall --yes --quiet pip
# The stage remains as an untagged image; `clean` finds it by this label.
LABEL mobiledet-runner=stage


FROM network AS models
COPY docker/requirements-protoc.lock ./
RUN python -m venv protoc \
 && protoc/bin/python -m pip install --no-deps --require-hashes --only-binary :all: -r requirements-protoc.lock
COPY models-research-pin.txt ./
COPY docker/manifests docker/manifests
COPY docker/models_research.py docker/models-research-local.ta[r] docker/
ARG MODELS_SOURCE=github
# 2>&1: the daemon adds colour codes to stderr, and the program must be able to read the error message.
RUN if [ "$MODELS_SOURCE" = local ]; then set -- --path docker/models-research-local.tar; fi; \
    python docker/models_research.py --source "$MODELS_SOURCE" "$@" --pin models-research-pin.txt \
        --protoc-python /build/protoc/bin/python --output /opt/models 2>&1 \
 && python -m compileall -q --invalidation-mode unchecked-hash /opt/models
LABEL mobiledet-runner=stage


FROM ${BASE_IMAGE}
# HOME and MPLCONFIGDIR are in /tmp: the caller's uid has no passwd entry, and only /tmp is writable.
# CUDA_VISIBLE_DEVICES is empty so that results are the same on every machine; the wheel also supports GPUs.
ENV PATH=/opt/toolchain/bin:/opt/venv/bin:/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin \
    LANG=C.UTF-8 HOME=/tmp MPLBACKEND=Agg MPLCONFIGDIR=/tmp/matplotlib \
    CUDA_VISIBLE_DEVICES="" BASH_ENV=/opt/toolchain/bin/_published_paths.sh PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY --from=wheels /opt/venv /opt/venv
COPY --from=models /opt/models /opt/models
COPY docker/models-research.pth /opt/venv/lib/python3.7/site-packages/
COPY docker/*.py /opt/toolchain/
COPY docker/bin /opt/toolchain/bin
COPY docker/steps /opt/toolchain/steps
COPY docker/server /opt/toolchain/server
RUN python -m compileall -q --invalidation-mode unchecked-hash /opt/toolchain \
 && python /opt/toolchain/smoke_test.py 2>&1
ARG BASE_IMAGE
ARG MODELS_SOURCE=github
LABEL mobiledet-runner=toolchain \
      mobiledet-runner.base-image=${BASE_IMAGE} \
      mobiledet-runner.models-source=${MODELS_SOURCE}
WORKDIR /tmp
