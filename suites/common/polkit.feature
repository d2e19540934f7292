@needs.program.pkaction
Feature: polkit
  It decides what people may do without being root. A rule that it cannot read or understand counts for nothing.

  Scenario: polkit answers
    When I run `pkaction`
    Then it succeeds
    And the output contains each of
      | action                                |
      | org.freedesktop.policykit.exec        |
      | org.freedesktop.login1.power-off      |
      | org.freedesktop.systemd1.manage-units |
    And the unit polkit.service is active
    And the name org.freedesktop.PolicyKit1 is owned on the system bus

  Scenario: The image brings rules
    Then /usr/share/polkit-1/rules.d/*.rules names at least 1 files

  # polkitd gives up root's rights before it reads them.
  @needs.command:id%20polkitd
  Scenario: Each rule can be read
    When I run the script
      """
      find /etc/polkit-1/rules.d /usr/share/polkit-1/rules.d \( -type d -o -name '*.rules' \) \
          ! -exec runuser -u polkitd -- test -r {} \; -print
      """
    Then it succeeds
    And the output is empty

  @needs.program.node
  Scenario: Each rule is JavaScript
    When I run the script
      """
      find /etc/polkit-1/rules.d /usr/share/polkit-1/rules.d -name '*.rules' -exec node -e '
          for (const path of process.argv.slice(1))
              try { new vm.Script(fs.readFileSync(path)) } catch (error) { console.log(`${path}: ${error.message}`) }
          ' {} +
      """
    Then it succeeds
    And the output is empty

  Scenario: Each rule is understood
    When I restart the unit polkit.service
    And I run `pkaction`
    Then it succeeds
    And the journal of the unit polkit.service since the scenario began does not match /[Ee]rror (compiling|evaluating|loading)/

  @needs.program.pkcheck
  Scenario: People may do what is harmless
    Given a user
    Then polkit allows org.freedesktop.login1.inhibit-delay-shutdown to the user

  @needs.program.pkcheck
  Scenario Outline: People have to say who they are: <action>
    Given a user
    Then polkit does not allow <action> to the user

    Examples:
      | action                                        |
      | org.freedesktop.policykit.exec                |
      | org.freedesktop.systemd1.manage-units         |
      | org.freedesktop.hostname1.set-static-hostname |
