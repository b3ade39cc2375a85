# Luthier. `make help` lists the targets. Everything downloaded or built is under $LUTHIER_HOME.

SHELL := /bin/bash
export LUTHIER_HOME ?= $(HOME)/.cache/luthier
PY := .venv/bin/python
PYTEST := .venv/bin/pytest
# Where unit tests lie (the registry's run on a folder and on S3): collecting the rest would import torch and ray.
UNIT := tests/unit tests/integration/artifacts
# Half the time of the integration tests is waiting. Tests that share addresses are one group, and so in one process;
# the longest groups go first.
IN_TWO := -n 2 --dist loadgroup --no-loadscope-reorder
# What a user may say: `make soak ARGS="--minutes 5"`.
ARGS ?=
CASES ?=
MANIFESTS := pyproject.toml constraints.txt $(wildcard */pyproject.toml)

.DEFAULT_GOAL := help
.PHONY: help demo test unit integration e2e rollouts gitops test-slow gpu gpu-kit gpu-proof test-older mutants lint generate docs protocols failures bench bench-prepare bench-trainer bench-job bench-operator bench-progress bench-serving bench-bulk bench-observing kills soak images release cluster cluster-down clean constraints

help: ## List the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Two sizes of one virtual environment: the demo needs no torch here (it is in the images), the tests do.
.venv/.demo: $(MANIFESTS) dev/bootstrap.sh
	@dev/bootstrap.sh demo
	@touch $@

.venv/.full: $(MANIFESTS) dev/bootstrap.sh
	@dev/bootstrap.sh full
	@touch .venv/.demo $@

demo: .venv/.demo ## The demo on a real cluster: train, publish, serve, edit, revert
	@$(PY) -m luthier_dev demo

test: .venv/.full ## Unit, integration and e2e tests, with everything they need
	@$(PY) -m luthier_dev test-setup
	$(PYTEST) -m "unit and not slow" $(UNIT) -n 2 --durations 5
	$(PYTEST) -m "integration and not slow" $(IN_TWO) --durations 10
	$(PYTEST) -m "e2e and not slow" --durations 10

test-slow: .venv/.full ## What is long and rare of all tiers; half an hour
	@$(PY) -m luthier_dev test-setup
	$(PYTEST) -m slow --durations 10
	LUTHIER_TEST_KILLS=12 $(PYTEST) -m integration tests/integration/trainer/test_survival.py

unit: .venv/.full ## Unit tests only, under a minute
	$(PYTEST) -m unit $(UNIT) -n 2

integration: .venv/.full ## Integration tests: a real API server and a real S3 server
	@$(PY) -m luthier_dev binaries
	$(PYTEST) -m "integration and not slow" $(IN_TWO)

e2e: .venv/.full ## End-to-end tests on a real one-node cluster with the chart installed
	$(PYTEST) -m e2e

rollouts: .venv/.full ## Rollouts and outages on a real cluster under load: no request may fail; a quarter of an hour
	$(PYTEST) -m rollouts -v

gitops: .venv/.full ## The main job by Git alone, with Flux on a real cluster; builds Flux the first time
	$(PYTEST) -m gitops -v -s

gpu: .venv/.full ## Tests that need an NVIDIA GPU; skipped without one
	$(PYTEST) -m gpu tests/gpu

gpu-kit: .venv/.full ## gpu-kit/: what a machine with a GPU and no network needs (gpu/README.md)
	@$(PY) gpu/kit.py

gpu-proof: .venv/.full ## Run the kit without a GPU, where neither this checkout nor a network is reached; about 10 minutes
	@$(PY) gpu/proof.py

test-older: .venv/.full ## Tests of trainer and engines on the packages of gpu/machine.txt (torch 2.11, transformers 5.17)
	@$(PY) gpu/proof.py --older $(ARGS)

mutants: .venv/.full ## Put small bugs into the source, one at a time: the unit tests must notice; ARGS="registry" chooses
	$(PY) tests/mutants $(ARGS)

lint: .venv/.full ## ruff, mypy, import contracts, generated files, the chart, and licences
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	$(PY) crds/generate.py --check
	PYTHONPATH=tests $(PY) cli/recordings.py --check
	@$(PY) -m luthier_dev lint-chart
	@$(PY) -m luthier_dev licences --check

generate: .venv/.full ## Write the CRDs, the reference pages, the screens of docs/cli.md, the chart's files, and the licences
	$(PY) crds/generate.py
	PYTHONPATH=tests $(PY) cli/recordings.py
	@$(PY) -m luthier_dev chart-files
	@$(PY) -m luthier_dev licences

docs: .venv/.demo ## The documentation as a site, into $LUTHIER_HOME/site; ARGS=--serve shows it and follows edits
	@$(PY) -m luthier_dev docs $(ARGS)

protocols: .venv/.full ## Write the gRPC messages of the server from open_inference.proto
	cd serving && ../$(PY) -m grpc_tools.protoc -I. --python_out=. luthier_serving/replica/protocols/open_inference.proto

failures: .venv/.full ## Write docs/failures.md: the reason and message of each class of failure
	@$(PY) -m luthier_dev binaries
	LUTHIER_WRITE_FAILURES=1 $(PYTEST) -m integration tests/integration/operator/test_failure_classes.py

bench: .venv/.full ## Measure start-up, memory and image sizes on the running cluster
	$(PY) benchmarks/main_job.py

bench-prepare: .venv/.full ## Measure prepare on a CSV of 2 million rows: memory, rows a second, second run
	$(PY) benchmarks/prepare_data.py

bench-trainer: .venv/.full ## Measure training against the usual ways, in CPU time per example (minutes, idle machine)
	OMP_NUM_THREADS=1 $(PY) benchmarks/trainer.py

bench-job: .venv/.full ## Measure a whole training job against the tutorial's script (minutes)
	$(PY) benchmarks/job.py

bench-operator: .venv/.full ## The operator at 1,000 to 10,000 resources beside two peers: hours; CASES="cold rate" chooses
	@$(PY) -m benchmarks.operator_bench $(CASES)

bench-progress: .venv/.full ## Measure what polling 500 running pods for progress costs the operator (minutes)
	@$(PY) -m benchmarks.operator_progress

bench-serving: .venv/.full ## Luthier's server beside five others on one core, CPU per request and latency; ARGS="Q2 Luthier" chooses
	@PYTHONPATH=tests $(PY) -W ignore -m benchmarks.serving_bench $(ARGS)

bench-bulk: .venv/.full ## 100,000 texts by a batch prediction that is killed three times, and its rate beside the online path; ARGS="--rows 10000"
	@PYTHONPATH=tests $(PY) -W ignore -m benchmarks.bulk $(ARGS)

bench-observing: .venv/.full ## Measure what metrics, drift, request log and traces cost a request, in CPU time (minutes)
	@$(PY) -W ignore -m benchmarks.observing --json benchmarks/results/observing.json

kills: .venv/.full ## Kill the operator after each of its writes, in four lives; writes docs/kills.md
	@$(PY) -m luthier_dev binaries
	rm -f benchmarks/results/kills.json
	LUTHIER_KILL_TABLE=benchmarks/results $(PYTEST) -m integration tests/integration/operator/test_every_kill.py

soak: .venv/.full ## Random users, kills and API faults for half an hour, checking invariants; ARGS="--minutes 5"
	@$(PY) -m luthier_dev binaries
	PYTHONPATH=tests $(PY) -W ignore -m benchmarks.soak $(ARGS)

images: .venv/.demo ## Build Luthier's three images (and the demo's) where sources changed
	@$(PY) -m luthier_dev images

release: .venv/.full ## Images and chart as files, with bills of materials and signatures; ARGS="--key cosign.key"
	@$(PY) -m luthier_dev release $(ARGS)

cluster: .venv/.demo ## Bring up a one-node cluster and print its KUBECONFIG
	@$(PY) -m luthier_dev cluster-up

cluster-down: .venv/.demo ## Take the cluster down; images stay
	@$(PY) -m luthier_dev cluster-down

clean: .venv/.demo ## Remove every process, mount, namespace, route and image
	@$(PY) -m luthier_dev clean

constraints: ## Resolve the dependencies again, with hashes
	@dev/bootstrap.sh constraints
