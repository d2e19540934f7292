# language: de
@fixture.browser
Funktionalität: Deutsch

  Grundlage:
    Angenommen the number 3

  Szenario: Zahlen
    Dann it is 3
    Und the browser is chrome

  Szenario: Falsche Zahlen
    Wenn KeyError is raised
