"""Cucumber expressions."""

from behave import then
from behave.cucumber_expression import define_parameter_type_with, use_step_matcher_for_cucumber_expressions

use_step_matcher_for_cucumber_expressions()
define_parameter_type_with(name="animal", regexp="cat|dog", type=str, transformer=str.upper)


@then("{int} {animal}(s) eat(s) {string}")
def step_eat(context, number, animal, food):
    assert (number, animal, food) == (2, "DOG", "fish")
