"""The simulated NP6 account.

`population` says who sends what to whom, `behaviour` how receivers react, `rendering` writes that as the API writes
it, `app` is the API's HTTP interface, and `server` serves it on a loopback address.
"""
