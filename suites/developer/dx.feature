Feature: The developer's programs
  What an image for developers (dx) has beside containers, and what has to work wherever it is there.

  Background:
    Given a user

  @image.dx
  Scenario Outline: An image for developers has <what>
    # What is not the image's own is Homebrew's.
    When I run the script as the user
      """
      PATH=$PATH:/home/linuxbrew/.linuxbrew/bin
      for program in <programs>; do command -v "$program" && exit; done
      exit 1
      """
    Then it succeeds

    Examples:
      | what                | programs     |
      | an editor           | code codium  |
      | dev containers      | devcontainer |
      | boxes of distrobox  | distrobox    |
      | boxes of toolbox    | toolbox      |

  @needs.program.node
  Scenario: Node runs a program
    When I run `node -e 'console.log([1, 2, 3].map((n) => n * n).join("-"))'` as the user
    Then it succeeds
    And the output is "1-4-9"

  @needs.program.python3
  Scenario: Python makes environments of a project's own
    When I run the script as the user
      """
      set -e
      folder=$(mktemp -d)
      trap 'rm -r "$folder"' EXIT
      python3 -m venv "$folder/venv"
      "$folder/venv/bin/python" -c 'import sys; print("own:", sys.prefix != sys.base_prefix)'
      "$folder/venv/bin/python" -m pip --version
      """
    Then it succeeds
    And the output contains "own: True"
    And the output matches /^pip \d/

  @needs.program.podman-compose
  Scenario: Compose reads a project's file
    Given a user with a session
    When I run the script as the user
      """
      set -e
      folder=$(mktemp -d)
      trap 'rm -r "$folder"' EXIT
      cd "$folder"
      printf 'services:\n  web:\n    image: localhost/${NAME}\n' >compose.yaml
      echo NAME=from-the-environment >.env
      podman-compose config
      """
    Then it succeeds
    And the output matches /image: localhost.from-the-environment/

  @needs.program.toolbox
  Scenario: Toolbox answers the user
    Given a user with a session
    When I run `toolbox list` as the user
    Then it succeeds

  @needs.program.mise
  Scenario: Mise tells which programs it has
    Then the program mise tells its version to the user
    And `mise ls` succeeds as the user

  @needs.program.mise @needs.network
  Scenario: Mise brings a program of a version
    When I run `mise exec node@22 -- node --version` as the user within 600 seconds
    Then it succeeds
    And the output matches /^v22\./

  @needs.program.python3 @needs.network @image.dx
  Scenario: Jupyter can be installed
    When I run `python3 -m venv ~/.pytest-bootc-jupyter` as the user within 120 seconds
    Then it succeeds
    When I run `~/.pytest-bootc-jupyter/bin/pip install --quiet jupyterlab` as the user within 900 seconds
    Then it succeeds
    When I run `~/.pytest-bootc-jupyter/bin/jupyter lab --version; status=$?; rm -r ~/.pytest-bootc-jupyter; exit $status` as the user within 120 seconds
    Then it succeeds
    And the output matches /^\d+\.\d+/
