@needs.command:grep%20-qrs%20org.freedesktop.secrets%20/usr/share/dbus-1/services
Feature: The keyring
  Passwords of mail, of networks and of web sites are kept by who answers for org.freedesktop.secrets, the Secret
  Service; without it programs keep them in plain files, or ask for them at each start.

  Background:
    Given a user with a session

  Scenario: The keyring answers
    Then the object /org/freedesktop/secrets of org.freedesktop.secrets has the interface org.freedesktop.Secret.Service on the session bus
    And the name org.freedesktop.secrets is owned on the session bus

  @needs.program.secret-tool
  Scenario: A secret is kept and given back
    It is kept in memory, in the collection of the session, which is never locked.
    When I run the script as the user
      """
      set -eu
      trap 'secret-tool clear test acceptance' EXIT
      printf 'open sesame' | secret-tool store --collection=session --label=Test test acceptance
      secret-tool lookup test acceptance
      """
    Then it succeeds
    And the output is "open sesame"

  @needs.command:ls%20/home/*/.local/share/keyrings/login.keyring
  Scenario: The login keyring is known
    When I call ReadAlias of org.freedesktop.Secret.Service at /org/freedesktop/secrets of org.freedesktop.secrets on the session bus with `s login`
    Then it succeeds
    And the JSON value at data[0] matches /^/org/freedesktop/secrets/collection/.+/

  @needs.command:ls%20/home/*/.local/share/keyrings/login.keyring
  Scenario: The login keyring is open
    The password that one logs in with opens it; then no program has to ask for one.
    Then the property Locked of org.freedesktop.Secret.Collection at /org/freedesktop/secrets/collection/login of org.freedesktop.secrets on the session bus is "false"

  Scenario: The keyring came up before programs asked for it
    The session's manager refuses what introduces itself after it has begun with this error.
    Then the journal does not contain "NotInInitialization"
