"""Steps that are coroutines. This file uses the default matcher again, and the decorators that need no import."""

import asyncio


@when("{n:Number} seconds pass")  # noqa: F821
async def step_pass(context, n):
    await asyncio.sleep(n / 1000)
    context.n = n


@when("a coroutine fails")  # noqa: F821
async def step_coroutine(context):
    await asyncio.sleep(0)
    assert context.n == 2
