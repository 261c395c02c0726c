# Airflow with Mailing Service on board: one image for every service of docker-compose.yaml.
# The slim image has no providers: ours come from constraints.txt, which the tests ran with.
FROM apache/airflow:slim-3.3.2-python3.11

USER 50000:0
WORKDIR /opt/airflow

# What a cluster needs and no more: neither the embedded stack nor what tests and linters want.
COPY requirements.txt constraints.txt /opt/airflow/
RUN sed '/^# The embedded stack/,$d' requirements.txt > /tmp/requirements.txt \
    && pip install --no-cache-dir -r /tmp/requirements.txt -c constraints.txt \
    && rm /tmp/requirements.txt \
    # A named volume takes over the owner of the folder that it is put on: root, where there is none.
    && mkdir -p auth gateway imports logs reports

# Root's, and nobody's to change: what is written goes into the folders above.
COPY dags /opt/airflow/dags
COPY plugins /opt/airflow/plugins
COPY include /opt/airflow/include
COPY local /opt/airflow/local

ENV PYTHONPATH=/opt/airflow/plugins:/opt/airflow
