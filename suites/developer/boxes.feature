@needs.program.distrobox @needs.program.podman
Feature: Boxes
  On a system that is updated as a whole, what belongs to a project is installed in a box: a container that has the
  user's home folder (distrobox(1)).

  Background:
    Given a user with a session

  Scenario: A box can be made, is listed, and can be removed
    # Of an image that is made of one program: it is not entered.
    When I run the script as the user
      """
      set -e
      image=localhost/pytest-bootc
      trap 'podman rm --force --ignore pytest-bootc; podman image rm --force "$image"' EXIT
      tar --create --directory=/ -- /usr/bin/id | podman import --quiet - "$image"
      distrobox create --yes --no-entry --name pytest-bootc --image "$image"
      echo "made: $(distrobox list --no-color | grep -w pytest-bootc)"
      distrobox rm --force pytest-bootc
      podman container exists pytest-bootc || echo "removed: $?"
      """
    Then it succeeds
    And the output matches /^made: .*pytest-bootc .*localhost.pytest-bootc/
    And the output contains "removed: 1"

  @needs.network
  Scenario: A box of Fedora can be entered, and has programs of its own
    When I run `distrobox create --yes --no-entry --name pytest-bootc --image registry.fedoraproject.org/fedora-toolbox:latest` as the user within 900 seconds
    Then it succeeds
    When I run `distrobox enter pytest-bootc -- sh -c 'echo "inside $CONTAINER_ID"'` as the user within 900 seconds
    Then it succeeds
    And the output contains "inside pytest-bootc"
    When I run `distrobox enter pytest-bootc -- sudo dnf install -y htop` as the user within 900 seconds
    Then it succeeds
    When I run `distrobox enter pytest-bootc -- distrobox-export --bin /usr/bin/htop` as the user within 120 seconds
    Then it succeeds
    When I run `~/.local/bin/htop --version` as the user within 120 seconds
    Then it succeeds
    And the output matches /htop \d/
    When I run `rm ~/.local/bin/htop; distrobox rm --force pytest-bootc` as the user within 120 seconds
    Then it succeeds
