"""Keeps what stands in Dify in step with what the portal wants there.

What is wanted, what was seen and what was last sent are compared by a pure function
(``planning``); a runner takes the plan's steps one by one and writes each down before the next
(``running``). What is kept in step are objects of registered kinds (``kinds``).
"""
