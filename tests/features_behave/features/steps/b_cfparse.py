"""Patterns with cardinality."""

from behave import then, use_step_matcher

use_step_matcher("cfparse")


@then("these are numbers: {numbers:Number+}")
def step_numbers(context, numbers):
    assert numbers == [1, 2, 3]


@then("this may be a number:{number:Number?}")
def step_maybe(context, number):
    assert number is None
