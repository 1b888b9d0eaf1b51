FROM python:3.11-slim AS build
WORKDIR /src
COPY . .
RUN python -m venv /opt/lung_unet && /opt/lung_unet/bin/pip install --no-cache-dir -c constraints.txt .

FROM python:3.11-slim
COPY --from=build /opt/lung_unet /opt/lung_unet
RUN useradd --create-home user
ENV HOME=/tmp
USER user
WORKDIR /data
ENTRYPOINT ["/opt/lung_unet/bin/lung-unet"]
