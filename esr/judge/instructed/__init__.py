"""Judges that are told in words what to do: the question put to them, the form of their answer, and what is made of it.

grading   a reply to attempts with scores      concreteness   labels to ratings      regions   where a reply drifts and returns
naming    latents to labels, and labels to guesses
fence     texts that cannot pass for ours      form           JSON, or malformed     judge     all of it under the one contract
"""
