# One command each. `make setup` is quick once .venv is there, so every target may ask for it.
# Another Python: make setup PYTHON=python3.12    Options of setup_env.py: make setup SETUP=--again
PYTHON ?= python3
SETUP ?=
# The raw datasets, a folder each; see README. Rows a source and split at most (0: all), and who builds.
DATA ?= ../shared/data
LIMIT ?= 0
EXECUTOR ?= local
CORPUS ?= corpus
# make nano FAST=1: a small model of a small corpus, in minutes instead of most of a day.
FAST ?=
PRESET := $(if $(FAST),nano-fast,nano)
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint nano corpus clean

help:
	@echo 'make setup   create .venv with everything, for what this machine has'
	@echo 'make demo    serve the embedded model, ask it about a sample photo, open the chat page'
	@echo 'make test    every test; browser tests need Chromium'
	@echo 'make lint    ruff and mypy'
	@echo 'make corpus  build the training corpus from the raw datasets'
	@echo 'make nano    the embedded model from those datasets: corpus, training, figures; goes on after a stop'
	@echo '             make nano FAST=1 does it in minutes for a small part of them'
	@echo 'make clean   remove caches and built wheels'

setup:
	@$(PYTHON) setup_env.py $(SETUP)

demo: setup
	@$(BIN)/facellava demo

test: setup
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadgroup

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy setup_env.py

corpus: setup
	$(BIN)/facellava build run celeba=$(DATA)/celeba10k real_fake_faces=$(DATA)/real_fake_faces \
	  fer2013=$(DATA)/fer2013 utkface=$(DATA)/utkface ict_facekit=$(DATA)/ict_facekit \
	  --least-label 1 --limit $(LIMIT) --executor $(EXECUTOR) --out $(CORPUS)

ifneq ($(FAST),)
nano: LIMIT := 400
nano: CORPUS := corpus-fast
endif
nano: corpus
	$(BIN)/facellava train run $(PRESET) --set corpus=$(CORPUS) --set out=runs/$(PRESET)
	$(BIN)/facellava eval run --suite packs --root $(DATA) --limit $(LIMIT) --model runs/$(PRESET)/model \
	  --out runs/$(PRESET)/packs

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .gradio
	find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +
