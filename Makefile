.PHONY: help demo test lint run lab lab-down bench shots
.DEFAULT_GOAL := help
PY := .venv/bin/python

help:  ## This list.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo:  ## The main job on this machine, with an invented hypervisor; Ctrl-C ends it (DEMO_EXIT=1: after the table).
	@.ci/setup run
	@$(PY) -m tests.demo

test:  ## Every test that this machine can run.
	@.ci/setup test
	@$(PY) -m tests $(ARGS)

lint:  ## Style, types, and which room may import which.
	@.ci/setup test
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports

run:  ## The server with your settings (DATABASE_URL, SECRET_KEY ...; DEBUG=true makes keys into var/).
	@.ci/setup run
	@$(PY) manage.py migrate --verbosity 0
	@$(PY) manage.py serve $(ARGS)

lab:  ## Real KVM hosts and a real DHCP server in network namespaces, and the server on them (as root).
	@.ci/setup test
	@$(PY) -m tests.lab.served up

lab-down:  ## End what `make lab` started.
	@$(PY) -m tests.lab.served down

bench:  ## What things cost, as a table and in tests/bench/results.json; ONLY=configdrive measures one part.
	@.ci/setup test
	@$(PY) -m tests.bench $(ONLY)

shots:  ## The pictures of README and docs, light and dark, taken of a small cloud made for them.
	@.ci/setup test
	@$(PY) -m tests.browser.shots
