@needs.program.podman
Feature: Quadlets
  What runs in containers as a service is described in a file, of which a generator makes a unit of systemd
  (podman-systemd.unit(5), systemd.generator(7)). Where that fails, nobody is told but the journal.

  @needs.file:/usr/lib/systemd/system-generators/podman-system-generator
  Scenario: A quadlet of the administrator becomes a service
    When I run the script
      """
      set -e
      file=/etc/containers/systemd/pytest-bootc.container
      mkdir -p /etc/containers/systemd
      trap 'rm "$file"; systemctl daemon-reload' EXIT
      printf '[Container]\nImage=localhost/pytest-bootc\n' >"$file"
      systemctl daemon-reload
      systemctl cat pytest-bootc.service
      """
    Then it succeeds
    And the output matches /^ExecStart=.*podman run .*localhost.pytest-bootc/

  @needs.file:/usr/lib/systemd/user-generators/podman-user-generator
  Scenario: A quadlet of the user becomes a service of theirs
    Given a user with a session
    When I run the script as the user
      """
      set -e
      file=~/.config/containers/systemd/pytest-bootc.container
      mkdir -p ~/.config/containers/systemd
      trap 'rm "$file"; systemctl --user daemon-reload' EXIT
      printf '[Container]\nImage=localhost/pytest-bootc\n' >"$file"
      systemctl --user daemon-reload
      systemctl --user cat pytest-bootc.service
      """
    Then it succeeds
    And the output matches /^ExecStart=.*podman run .*localhost.pytest-bootc/

  @needs.file:/usr/lib/systemd/system-generators/podman-system-generator
  Scenario: The system's quadlets are understood
    When I run `/usr/lib/systemd/system-generators/podman-system-generator --dryrun`
    Then it succeeds
    And the error output does not match /converting|[Ee]rror/

  @needs.file:/usr/lib/systemd/user-generators/podman-user-generator
  Scenario: The user's quadlets are understood
    Given a user with a session
    When I run `/usr/lib/systemd/user-generators/podman-user-generator --user --dryrun` as the user
    Then it succeeds
    And the error output does not match /converting|[Ee]rror/

  @image.bluefin @needs.file:/usr/share/containers
  Scenario: The image itself starts no containers
    When I run `find /usr/share/containers -path '*/systemd/*' ! -type d`
    Then it succeeds
    And the output is empty
