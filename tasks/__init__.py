"""Steps that Prefect may cache, retry and show: a decorator and one call each. Module and function read as a verb and its object."""

from tasks import environment

environment.prepare()
