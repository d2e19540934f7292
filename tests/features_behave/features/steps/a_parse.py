"""The default matcher, types, and what the context has."""

import warnings
from dataclasses import dataclass

import helpers
import parse
import step_helpers
from behave import given, register_type, step, then, when
from behave.api.pending_step import StepNotImplementedError
from behave.runner import ContextMaskWarning


@parse.with_pattern(r"\d+")
def parse_number(text):
    return int(text)


@parse.with_pattern(r"[a-z]+")
def parse_colour(text):
    if text not in ("red", "green"):
        raise ValueError(f"{text} is no colour")
    return text


register_type(Number=parse_number, Colour=parse_colour)


@dataclass
class Seen:
    """A dataclass in a step file."""

    word: "str"


@given("the number {n:Number}")
def step_number(context, n):
    context.n = n


@then("it is {n:Number}")
def step_is(context, n):
    assert context.n == n


@then("the colour is {colour:Colour}")
def step_colour(context, colour):
    assert Seen(colour).word == "red"


@when("{word} is raised")
def step_raise(context, word):
    raise {"KeyError": KeyError, "OSError": OSError}[word]("on purpose")


@given("a table")
def step_table(context):
    context.rows = [row.as_dict() for row in context.table]
    assert context.table.headings == ["name", "size"]


@then("row {number:Number} is {name} of {size}")
def step_row(context, number, name, size):
    assert context.table is None
    assert context.rows[number - 1] == {"name": name, "size": size}


@given("a text")
def step_text(context):
    context.words = context.text.split()
    assert context.text.content_type == "text/plain"


@then("it has {n:Number} words")
def step_words(context, n):
    assert context.text is None
    assert len(context.words) == n


@when("other steps run")
def step_others(context):
    assert context.execute_steps("""
        Given the number 4
        Then it is 4
        Given a table
          | name | size |
          | one  | 1    |
    """)


@when("a step within fails")
def step_within(context):
    context.execute_steps("Given the number 4\nThen it is 5")


@when("a step within is undefined")
def step_within_undefined(context):
    context.execute_steps("Given nobody knows what")


@given("something is pending")
def step_pending(context):
    raise StepNotImplementedError("not yet")


@step("the userdata say {planet}")
def step_userdata(context, planet):
    userdata = context.config.userdata
    assert userdata["planet"] == planet
    assert userdata.getint("count") == 3
    assert userdata.getfloat("missing", 0.5) == 0.5


@when("the scenario is skipped")
def step_skip(context):
    context.scenario.skip("it is not to be run")


@then("the value of the layer {layer} is seen")
def step_layers(context, layer):
    assert context.everywhere == "all"
    assert context.in_feature == context.feature.name
    assert not hasattr(context, "nothing")
    assert "everywhere" in context
    assert "nothing" not in context
    assert layer in ("feature", "rule")
    assert hasattr(context, "in_rule") == (layer == "rule")


@when("a value is masked")
def step_mask(context):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        context.feature = "mine"
    assert {warning.category for warning in caught} == {ContextMaskWarning}


@given("some output")
def step_output(context):
    print("printed")


@then("the output was captured")
def step_captured(context):
    assert "printed" in context.captured.stdout


@then("the browser is {name}")
def step_browser(context, name):
    assert context.browser == name


@then("the row is {text}")
def step_active_row(context, text):
    assert ",".join(context.active_outline.cells) == text
    assert context.active_outline["n"] == context.active_outline.cells[0]


@then("no row is active")
def step_no_row(context):
    assert context.active_outline is None


@then("modules beside the steps are there")
def step_modules(context):
    import late_helpers

    assert late_helpers.WORD == "late"
    assert isinstance(context.machine, helpers.Machine)
    assert step_helpers.WORD == "beside"


@given("a bad hook {when}")
def step_bad_hook(context, when):
    pass


@then("tags are {tags}")
def step_tags(context, tags):
    assert ",".join(sorted(context.tags)) == tags
