@needs.program.podman
Feature: Containers
  Toolboxes, development containers and services run in them. Nothing is pulled: what runs is the machine's own shell.

  Scenario: Podman tells its version
    Then the program podman tells its version

  # The driver vfs, which works anywhere, copies all of an image for each layer and each container.
  Scenario: Layers are stored once for root
    When I run `podman info --format '{{.Store.GraphDriverName}}'` within 90 seconds
    Then it succeeds
    And the output matches /^(overlay|btrfs)$/

  Scenario: Layers are stored once for users
    Given a user with a session
    When I run `podman info --format '{{.Store.GraphDriverName}}'` as the user within 90 seconds
    Then it succeeds
    And the output matches /^(overlay|btrfs)$/

  @needs.command:systemctl%20is-enabled%20podman.socket
  Scenario: Programs reach Podman by its socket
    Then the unit podman.socket is active
    And the socket /run/podman/podman.sock exists
    When I run `podman --url unix:///run/podman/podman.sock version --format '{{.Server.Version}}'` within 90 seconds
    Then it succeeds
    And the output matches /^\d+\.\d+/

  @needs.user-unit.podman.socket
  Scenario: Programs of users reach Podman by their socket
    Given a user with a session
    When I start the user unit podman.socket
    And I run `podman --url unix://$XDG_RUNTIME_DIR/podman/podman.sock version --format '{{.Server.Version}}'` as the user within 90 seconds
    Then it succeeds
    And the output matches /^\d+\.\d+/

  @needs.program.ldd @needs.program.tar
  Scenario: Root runs a container
    When I run the script
      """
      set -e
      image=localhost/pytest-bootc-shell
      trap 'podman rmi --force "$image" >/dev/null' EXIT
      cd / && tar -ch -- bin/sh $(ldd bin/sh | grep -o '/[^ ]*' | cut -c 2-) |
          podman import --quiet - "$image" >/dev/null
      podman run --rm --pull=never "$image" /bin/sh -c \
          'echo inside; while read -r line; do echo "$line"; done </proc/net/dev'
      """
    Then it succeeds
    And the output contains "inside"
    # A network of its own, with a device beside the loopback.
    And the output matches /^eth0:/

  @needs.program.ldd @needs.program.tar
  Scenario: A user runs a container
    Given a user with a session
    When I run the script as the user
      """
      set -e
      image=localhost/pytest-bootc-shell
      trap 'podman rmi --force "$image" >/dev/null' EXIT
      cd / && tar -ch -- bin/sh $(ldd bin/sh | grep -o '/[^ ]*' | cut -c 2-) |
          podman import --quiet - "$image" >/dev/null
      podman run --rm --pull=never --network=none "$image" /bin/sh -c \
          'echo inside; read -r map </proc/self/uid_map; echo "$map"'
      """
    Then it succeeds
    And the output contains "inside"
    # Root in there is the user outside: not root.
    And the output matches /^0\s+[1-9]\d*\s+1$/
