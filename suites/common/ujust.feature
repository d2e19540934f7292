@needs.program.ujust
Feature: ujust
  The commands that Universal Blue gives to people are recipes of just(1). Some of them only end well because their last
  command does: what they print counts, too.

  Scenario: The recipes can be read
    When I run `ujust --summary`
    Then it succeeds
    And the output matches /\S+ \S+/
    And the error output is empty

  Scenario: The recipes are listed with what they do
    When I run `ujust --list`
    Then it succeeds
    And the output matches /^ .*\S +# \S/

  @needs.ujust.check-local-overrides
  Scenario: What was changed in etc can be looked for
    When I run `NO_COLOR=1 ujust check-local-overrides`
    Then it succeeds
    And the error output does not match /not found|unrecognized option/

  @needs.ujust.check-local-overrides @needs.file:/usr/etc
  Scenario: What was changed in etc is found
    Given the file /etc/pytest-bootc-change with the text
      """
      changed
      """
    When I run `NO_COLOR=1 ujust check-local-overrides`
    Then it succeeds
    And the output contains "pytest-bootc-change"

  @needs.ujust.logs-this-boot
  Scenario: The log of this boot is shown
    When I run `ujust logs-this-boot`
    Then it succeeds
    And the output contains "systemd[1]: "

  @needs.ujust.bios-info
  Scenario: The firmware is told
    When I run `ujust bios-info`
    Then it succeeds
    And the output contains each of
      | line          |
      | Manufacturer: |
      | Product Name: |
      | Version:      |
      | Release Date: |
    And the error output does not contain "not found"

  # Earlier recipes ask, whatever they are told.
  @needs.ujust:toggle-updates=ACTION_VALUE @needs.unit.uupd.timer
  Scenario: Updates are switched off and on
    When I run `ujust toggle-updates disable`
    Then it succeeds
    And the output contains "Updates have been disabled"
    And the unit uupd.timer is not enabled
    When I run `ujust toggle-updates enable`
    Then it succeeds
    And the output contains "Updates have been enabled"
    And the unit uupd.timer is enabled

  @needs.network @needs.program.glow @needs.ujust.changelogs
  Scenario: The changelog is shown
    When I run `PAGER=cat ujust changelogs`
    Then it succeeds
    And the output has at least 5 lines

  # The real fzf, without a screen: it takes what its filter leaves.
  @needs.ujust.logs-this-boot @needs.program.fzf
  Scenario: A recipe is chosen from a list
    When I run `FZF_DEFAULT_OPTS="--filter=^logs-this-boot$" ujust --choose`
    Then it succeeds
    And the output contains "systemd[1]: "

  # In the place of the programs that ask people and talk to GitHub there are others here, which say so.
  @needs.ujust:report=gh%20gist
  Scenario Outline: A report is uploaded <when>
    When I run the script
      """
      folder=$(mktemp -d)
      trap 'rm -r "$folder"' EXIT
      cat >"$folder/gum" <<'GUM'
      #!/bin/sh
      [ "$1" != choose ] || { echo Skip; exit; }
      case $* in *[Uu]pload*\?) exit <answer> ;; confirm*) exit 1 ;; style*) for word; do :; done; echo "$word" ;; esac
      GUM
      cat >"$folder/gh" <<'GH'
      #!/bin/sh
      [ "$1 $2" != "gist create" ] || { echo "$*" >"$0.called"; echo https://gist.github.com/made-up; }
      GH
      chmod 755 "$folder/gum" "$folder/gh"
      PATH=$folder:$PATH ujust report </dev/null
      status=$?
      [ ! -e "$folder/gh.called" ] || echo "uploaded: $(cat "$folder/gh.called")"
      exit $status
      """
    Then it succeeds
    And the output contains "Kernel"
    And the output <judged> /^uploaded: .*summary\.md/

    Examples:
      | when                   | answer | judged         |
      | where people agree     | 0      | matches        |
      | only where they agree  | 1      | does not match |
