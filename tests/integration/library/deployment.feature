Feature: Steps about deployments
  Tried with a program that prints what bootc does: no image of ours is installed by bootc itself.

  Scenario: What is deployed
    Then the system is a deployment of bootc
    And the booted deployment comes from "registry.example/os:a"
    And the booted deployment comes from an image matching /^registry\.example\//
    And the booted deployment has a digest
    And there is no staged deployment
    And there is a rollback deployment

  Scenario: What comes next
    Given the file FOLDER/status.json with the text
      """
      {"status": {"type": "bootcHost", "booted": {"image": {"image": {"image": "x"}}}, "staged": {}}, "spec": {}}
      """
    Then there is a staged deployment
    And there is no rollback deployment

  Scenario Outline: It is not as expected: <step>
    Then <step>

    Examples:
      | step                                                       | message                                                        |
      | the system is a deployment of ostree                       | the system is a deployment of bootc, not of ostree             |
      | the booted deployment comes from "registry.example/os:b"   | comes from registry.example/os:a, not from registry.example/os:b |
      | the booted deployment comes from an image matching /^os/   | comes from registry.example/os:a, which does not match /^os/   |
      | there is a staged deployment                               | there is no staged deployment                                  |
      | there is no rollback deployment                            | there is a rollback deployment                                 |

  Scenario Outline: It is not known: <step>
    Given the file FOLDER/status.json with the text
      """
      {"status": {"type": "bootcHost", "booted": {"image": {"imageDigest": "sha256:1"}}}, "spec": {}}
      """
    Then <step>

    Examples:
      | step                                                       | message                                                        |
      | the booted deployment comes from "registry.example/os:b"   | the booted deployment comes from an unknown image              |
      | the booted deployment has a digest                         | the booted deployment has no digest: 'sha256:1'                |
