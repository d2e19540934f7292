@needs.program.sudo
Feature: People become root with sudo
  A rule lets somebody be root, and nothing else does. Whichever sudo the image has, the classic one or the one written
  in Rust, people and scripts rely on the same of it (sudo(8), sudoers(5)).

  Background:
    Given the user sudoer

  Scenario: Somebody without a rule stays who they are
    When I run `sudo -n id -u` as the user
    Then it fails
    And the output is empty

  Scenario: A rule makes somebody root
    Given the file /etc/sudoers.d/pytest-bootc with the text
      """
      sudoer ALL=(ALL:ALL) NOPASSWD: ALL
      """
    When I run `sudo -n id -u` as the user
    Then it succeeds
    And the output is "0"

  Scenario: The password is asked for, and has to be right
    Given the file /etc/sudoers.d/pytest-bootc with the text
      """
      sudoer ALL=(ALL:ALL) ALL
      """
    When I run `chpasswd` with the input "sudoer:Harbour-9-lantern"
    Then it succeeds
    When I run `echo Harbour-9-lantern | sudo -k -S id -u` as the user
    Then it succeeds
    And the output is "0"
    When I run `echo Harbour-8-lantern | sudo -k -S id -u` as the user
    Then it fails
    And the output is empty

  Scenario: Only the variables that are named reach the command
    Given the file /etc/sudoers.d/pytest-bootc with the text
      """
      sudoer ALL=(ALL:ALL) NOPASSWD: ALL
      """
    When I run `NAMED=yes OTHER=yes sudo -n --preserve-env=NAMED env` as the user
    Then it succeeds
    And the output matches /^NAMED=yes$/
    And the output does not match /^OTHER=/

  @needs.program.sudoedit
  Scenario: A file of root's is edited with sudoedit
    Given the file /etc/sudoers.d/pytest-bootc with the text
      """
      sudoer ALL=(ALL:ALL) NOPASSWD: ALL
      """
    And the file /etc/pytest-bootc-edited with the text
      """
      before
      """
    When I run `echo after | SUDO_EDITOR=/usr/bin/tee sudoedit -n /etc/pytest-bootc-edited` as the user
    Then it succeeds
    And the file /etc/pytest-bootc-edited contains "after"
    And the file /etc/pytest-bootc-edited belongs to root:root

  @needs.file:/etc/pam.d/sudo
  Scenario: sudo asks what every login asks
    Then the file /etc/pam.d/sudo matches /^(@include|auth\s+(include|substack))\s+(system|common|password|base)-auth/
