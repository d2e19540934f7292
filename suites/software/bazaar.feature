Feature: Bazaar
  The shop of a Bluefin, itself an application from Flathub, with settings of the image.

  @image.bluefin
  Scenario: Bazaar is installed from Flathub
    Then the Flatpak io.github.kolunmi.Bazaar is installed
    And the Flatpak io.github.kolunmi.Bazaar comes from the remote flathub
    And `flatpak info --system io.github.kolunmi.Bazaar` succeeds

  @image.bluefin
  Scenario: Bazaar has its settings
    Then these paths exist
      | path                       |
      | /etc/bazaar/bazaar.yaml    |
      | /etc/bazaar/blocklist.yaml |
      | /etc/bazaar/curated.yaml   |
