"""Every hook tells that it ran, in the file that EVENTS names."""

import logging
import os
from pathlib import Path

from behave import fixture, use_fixture
from behave.fixture import use_fixture_by_tag
from behave.tag_matcher import ActiveTagMatcher, setup_active_tag_values
from helpers import Machine

ACTIVE = {"planet": "Mars"}


def tell(*words):
    if "EVENTS" in os.environ:
        with Path(os.environ["EVENTS"]).open("a") as events:
            print(*words, file=events)


@fixture
def browser(context, *, name="firefox"):
    tell("fixture", name)
    context.browser = name
    yield name
    tell("fixture ends", name)


@fixture
def simple(context):
    context.simple = True


@fixture
def half_made(context):
    tell("half made")
    context.add_cleanup(tell, "half made is cleaned up")
    raise RuntimeError("this fixture cannot be made")
    yield


FIXTURES = {"fixture.browser": (browser, (), {"name": "chrome"}), "fixture.simple": simple, "fixture.half": half_made}


def before_all(context):
    tell("before_all", context.config.userdata["planet"])
    setup_active_tag_values(ACTIVE, context.config.userdata)
    context.matcher = ActiveTagMatcher(ACTIVE)
    context.machine = Machine()
    context.everywhere = "all"
    context.config.setup_logging()
    context.add_cleanup(tell, "cleanup of all")
    use_fixture(browser, context)


def before_feature(context, feature):
    tell("before_feature", feature.name)
    if context.matcher.should_skip_with_tags(feature.tags):
        feature.skip(reason=context.matcher.skip_reason)
    if "skipped_by_hook" in feature.tags:
        feature.skip("the hook says so")
    context.in_feature = feature.name
    context.add_cleanup(tell, "cleanup of feature", feature.name)
    if "bad_feature_hook" in feature.tags:
        raise ValueError("a hook of the feature fails")


def before_rule(context, rule):
    tell("before_rule", rule.name, sorted(context.tags))
    context.in_rule = rule.name


def before_tag(context, tag):
    tell("before_tag", tag)
    if tag.startswith("fixture."):
        use_fixture_by_tag(tag, context, FIXTURES)
    if tag == "bad_before_tag":
        raise ValueError("a hook of a tag fails")


def before_scenario(context, scenario):
    tell("before_scenario", scenario.name, sorted(context.tags))
    if context.matcher.should_skip_with_tags(scenario.effective_tags):
        scenario.skip(context.matcher.skip_reason)
    if "skipped_by_hook" in scenario.tags:
        scenario.skip()
    scenario.continue_after_failed_step = "goes_on" in scenario.tags
    context.add_cleanup(tell, "cleanup of scenario", scenario.name)
    if "bad_cleanup" in scenario.tags:
        context.add_cleanup(lambda: {}["cleanup"])
    if "bad_before_scenario" in scenario.tags:
        raise AssertionError("a hook of the scenario fails")


def before_step(context, step):
    tell("before_step", step.name)
    if step.name == "a bad hook before":
        raise ValueError("a hook of the step fails")


def after_step(context, step):
    tell("after_step", step.name, step.status.name)
    if step.name == "a bad hook after":
        raise ValueError("a hook of the step fails")


def after_scenario(context, scenario):
    tell("after_scenario", scenario.name, scenario.status.name, hasattr(context, "n"))
    if "bad_after_scenario" in scenario.tags:
        raise ValueError("a hook of the scenario fails")


def after_tag(context, tag):
    tell("after_tag", tag)
    if tag == "bad_after_tag":
        raise ValueError("a hook of a tag fails")


def after_rule(context, rule):
    tell("after_rule", rule.name)


def after_feature(context, feature):
    tell("after_feature", feature.name, hasattr(context, "in_rule"))


def after_all(context):
    tell("after_all", context.failed, context.browser)
    logging.getLogger("after").info("all is over")
