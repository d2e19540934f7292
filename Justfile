# The scripts under shorter names.

# list the recipes
default:
    @just --list

# build the sample image (or take IMAGE), boot it and judge it
demo *IMAGE:
    scripts/demo {{ IMAGE }}

# lint, format, types
check:
    scripts/check

# the project's tests: all tiers, or those that are named
test *TIERS:
    scripts/test {{ TIERS }}

# write docs/reference.md from the code
docs:
    .venv/bin/python docs/generate.py
