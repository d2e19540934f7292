"""Regular expressions, old and new."""

from behave import step, then, use_step_matcher

use_step_matcher("re")


@then(r"(?P<what>\w+) matches(?: (?P<how>well|badly))?")
def step_matches(context, what, how):
    assert (what, how) in (("this", "well"), ("this", None))


use_step_matcher("re0")


@step(r"^an old expression with (\d+)$")
def step_old(context, number):
    assert number == "12"
