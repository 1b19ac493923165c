# A server of one model. Build it in the checkout, and mount a folder with the model and its programs:
#
#   docker build -t graphprog .
#   docker run -p 8000:8000 -v "$PWD/served:/models:ro" -e GRAPHPROG_TOKEN=... graphprog \
#       /models/model.onnx --programs /models
#
# `docker stop` ends it gracefully: requests that have begun are answered.
FROM python:3.11-slim
RUN pip install --no-cache-dir torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu
COPY . /source
RUN pip install --no-cache-dir -c /source/constraints.txt "/source[serve]" \
    && rm -r /source \
    && useradd --create-home server
USER server
WORKDIR /home/server
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --start-period=60s CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=5)"]
ENTRYPOINT ["graphprog", "serve", "--host", "0.0.0.0", "--port", "8000"]
CMD ["/models/model.onnx"]
