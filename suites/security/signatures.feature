@needs.network @needs.program.cosign
Feature: Images are signed
  A system that is updated as a whole installs whatever its registry hands out. So the images that people of these
  projects are led to are signed without a key by the workflows that have built them, and cosign can tell.

  @image.bluefin @image.dakota
  Scenario Outline: Workflows of <owner> have signed <image>
    When I run the script
      """
      cosign verify \
          --certificate-oidc-issuer=https://token.actions.githubusercontent.com \
          --certificate-identity-regexp='^https://github[.]com/<owner>/' \
          ghcr.io/<owner>/<image>
      """
    Then it succeeds
    And the output is JSON
    And there is a JSON value at [0].critical.image.docker-manifest-digest

    Examples:
      | owner          | image                         |
      | projectbluefin | bluefin:latest                |
      | projectbluefin | bluefin:lts                   |
      | projectbluefin | dakota:latest                 |
      | ublue-os       | bluefin:latest                |
      | ublue-os       | bluefin:lts                   |
      | ublue-os       | bluefin:gts                   |
      | ublue-os       | bluefin-dx:latest             |
      | ublue-os       | bluefin-nvidia-open:latest    |
      | ublue-os       | bluefin-dx-nvidia-open:latest |

  @image.bluefin @image.dakota
  Scenario: An image that nobody has signed is refused
    When I run the script
      """
      cosign verify \
          --certificate-oidc-issuer=https://token.actions.githubusercontent.com \
          --certificate-identity-regexp='^https://github[.]com/projectbluefin/' \
          docker.io/library/busybox:latest
      """
    Then it fails
    And the error output contains "no signatures found"
