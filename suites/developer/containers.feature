@needs.program.podman
Feature: Containers of a developer
  Developers run containers as themselves, and have systemd run them. Sources: podman(1), podman-systemd.unit(5),
  subuid(5), docker-context(1).

  Background:
    Given a user with a session

  Scenario: Podman needs no root
    Then Podman says to the user that host.security.rootless is "true"

  Scenario: The user has ids for the users of containers
    When I run `podman unshare cat /proc/self/uid_map` as the user
    Then it succeeds
    And the output matches /^ +1 +\d+ +\d{5,}$/

  @image.bluefin @needs.user-unit.podman.socket
  Scenario: Podman's socket is open to the user
    Then the user unit podman.socket is active
    When I run `podman --remote --url "unix://$XDG_RUNTIME_DIR/podman/podman.sock" info --format json` as the user
    Then it succeeds
    And the JSON value at host.serviceIsRemote is "true"

  @image.bluefin @needs.user-unit.podman-auto-update.timer
  Scenario: Containers of the user are updated by themselves
    Then the user unit podman-auto-update.timer is enabled
    And the user timer podman-auto-update.timer will elapse

  @image.bluefin
  @needs.command:PATH=$PATH:/home/linuxbrew/.linuxbrew/bin;%20command%20-v%20docker
  Scenario: The Docker client speaks to Podman or Colima
    When I run the script as the user
      """
      PATH=$PATH:/home/linuxbrew/.linuxbrew/bin
      docker context inspect --format '{{.Endpoints.docker.Host}}'
      """
    Then it succeeds
    And the output matches /(podman\.sock|colima.*docker\.sock)$/
    When I run `PATH=$PATH:/home/linuxbrew/.linuxbrew/bin; docker version` as the user
    Then it succeeds
    And the output contains "Server:"

  @needs.command:PATH=$PATH:/home/linuxbrew/.linuxbrew/bin;%20command%20-v%20colima
  Scenario: Colima can be started
    When I run `PATH=$PATH:/home/linuxbrew/.linuxbrew/bin; colima version` as the user
    Then it succeeds
    And the output matches /colima version \S*\d/

  Scenario: A user's services can run without a login
    Given the user pytest-bootc
    When I run `loginctl enable-linger pytest-bootc`
    Then it succeeds
    And the user pytest-bootc lingers
    When I wait until `systemctl --user is-active basic.target` succeeds as the user within 60 seconds
    Then the user unit basic.target is active
